"""What goes over the wire: msgspec Structs without behaviour.

`inbound` is what a relay puts on the input topic, `state` and `transition` are what the service publishes.
"""
