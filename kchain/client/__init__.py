"""Kaggle's API as one user speaks it; decides nothing. The door is `client.connect(target)`.

client.py asks, answers.py says what the answers are; transport.py carries calls over kagglesdk (sdk.py), translate.py
turns foreign errors into kchain's (refusals.py); login.py finds credentials; fetch.py, pull.py, upload.py and stream.py
move files and logs.
"""
