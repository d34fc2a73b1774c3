"""Where every value of a graph is: storage orders, aliases, the plan."""
