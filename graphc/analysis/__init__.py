"""What several rooms ask of a graph: dependence, masks, attention that is spelled out. Nothing here changes a graph."""
