"""Where rows, owners and units meet: the block loop, adapters in their places, and which owners share a pass."""
