"""Many pictures: where they come from, how reading, passes and writing overlap, what a command tells; without torch."""
