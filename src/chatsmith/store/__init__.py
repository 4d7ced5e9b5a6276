"""The model folder: a Hugging Face folder that other programs load, and the checkpoints that training resumes from."""
