"""A supervision step outside of this package: as torch.export program and as ONNX graph, and the folder for both."""
