"""What a training run needs, on paper: memory, FLOPs, communication and time, without a device.

Plain Python: nothing here imports TensorFlow, Keras or JAX.
"""
