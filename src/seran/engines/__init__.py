"""How a trained network is run: one module per engine, each with ``load``: weights -> predictor.

A predictor is `seran.infer.Predict`. OpenVINO is the engine for CPUs; torch (an optional dependency) is the
engine for CUDA and Apple GPUs.
"""
