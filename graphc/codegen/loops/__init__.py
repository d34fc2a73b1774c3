"""The loop IR: builder, printer, verifier."""
