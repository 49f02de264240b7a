"""What training would cost, found without training: candidates, exact counts, predicted memory and time."""
