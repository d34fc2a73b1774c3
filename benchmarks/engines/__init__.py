"""The engines that are compared, each in a process of its own. ENGINES: name -> module with `IMPORTS`, `CONFIGURATION` and `make(case)`."""
