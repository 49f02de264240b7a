"""What a published SegFormer is called, configured and stored as."""
