"""Loss balancing: ways to combine the losses of several tasks into one, one file each."""
