"""From the files of labels to targets."""
