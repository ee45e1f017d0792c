"""What goes over the wire: msgspec Structs without behaviour.

`inbound` is what a relay puts on the input topic; `state`, `transition` and `dead_letter` are what the service
publishes; `query` is what the query port answers. `make schemas` writes JSON Schemas of what is published to `json/`.
"""
