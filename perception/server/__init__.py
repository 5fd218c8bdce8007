"""The live service: an HTTP API, streams of server-side cameras, a browser's webcam, and the page around them.

One process, one event loop for the network and threads for the work. A room imports only rooms below it.

| room | what is there |
|---|---|
| ``settings.py`` | what the operator set: address, credentials, sources, limits |
| ``problems.py`` | errors and the HTTP status of each |
| ``uploads.py``, ``form.py``, ``decoding.py`` | pictures and videos of clients, received and looked at within limits |
| ``bodies.py`` | all other bodies, within limits |
| ``options.py`` | what a client may set: thresholds, classes, drawing |
| ``allow.py`` | which sources a client may open |
| ``headers.py``, ``guessing.py``, ``sessions.py`` | headers as data; waits after wrong credentials; logins |
| ``access.py``, ``login.py`` | who may come in: credentials, origin, number of connections; HTTP and WebSocket alike |
| ``metrics.py``, ``sparing.py`` | counters and histograms for Prometheus; logs that no client can fill |
| ``models.py``, ``scheduler.py`` | models by name; one engine, shared fairly |
| ``hub.py``, ``stream.py``, ``capture.py``, ``figures.py`` | one capture and inference a source, many viewers |
| ``subscription.py``, ``broadcast.py`` | a viewer's place: in this process, on the network |
| ``mjpeg.py``, ``jpeg.py``, ``fmp4.py``, ``record.py`` | what viewers get of a stream |
| ``memory.py`` | what the C library keeps of freed memory, given back |
| ``jobs.py``, ``worker.py`` | uploaded videos: kept in SQLite and files, worked off one after the other |
| ``explain_process.py`` | what a model looked at, in a process of its own |
| ``service.py`` | models, streams, jobs and metrics of one running server |
| ``api.py``, ``explain_api.py``, ``jobs_api.py``, ``streams_api.py``, ``webcam.py`` | routes |
| ``docs.py`` | the page that describes them |
| ``page/`` | the Gradio page, and the edge that closes what it does not need |
| ``app.py``, ``http.py`` | all of it as one FastAPI application, and how it is served |
| ``commands.py``, ``startup.py`` | ``perception live`` |
"""
