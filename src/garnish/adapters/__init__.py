"""The adapter methods (LoRA, bottlenecks, prompts, …): one file per method or closely related family."""
