"""What is generated from the Structs and the query port, and checked in: JSON Schemas, AsyncAPI and OpenAPI."""
