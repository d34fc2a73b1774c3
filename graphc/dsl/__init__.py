"""The front end: symbolic arrays, tracing, public functions and graph transforms."""
