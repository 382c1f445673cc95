"""The floor both services stand on: values, doors to outside systems, the way a service runs. No policy."""
