"""Export of LoRA, rsLoRA and DoRA to PEFT's file format, and import from it."""
