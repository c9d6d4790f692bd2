"""CogVideoX's files: names, parts, LoRAs."""
