"""Training of Midway Networks, installed as `midway_hub.training`."""
