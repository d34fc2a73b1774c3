"""Mathematical functions in loop IR."""
F32 = {}
F64 = {}
