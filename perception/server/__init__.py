"""The live service: an HTTP API, streams of server-side cameras, a browser's webcam, and the page around them.

One process, one event loop for the network and threads for the work. docs/architecture.md says what is in which folder.
"""
