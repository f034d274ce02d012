"""Reads and writes trained models: workdirs, Hugging Face directories and OpenAI checkpoints."""
