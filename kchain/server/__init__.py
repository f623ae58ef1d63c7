"""The Kaggle-compatible server: what kchain's client, or the plain `kaggle` command, talks to on one's own machine.

app.py routes a request, read by wire.py, to one of kernels, save_kernel, outputs, blobs, datasets, models; what data
sets and models share is in things.py. sessions.py queues kernel versions and starts one runner process for each.
publish.py and launch.py are the doors for other parts of kchain and import neither starlette nor papermill.
"""
