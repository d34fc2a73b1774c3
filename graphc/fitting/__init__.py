"""What `step.fit` is made of: data, the loop over epochs, what it leaves."""
