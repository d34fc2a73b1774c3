"""How kernels run: iteration spaces, forms, schedules as plain data, their choosers, the machine."""
