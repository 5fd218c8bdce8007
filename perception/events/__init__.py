"""Events: what happened, and how it reaches files, webhooks and MQTT brokers."""
