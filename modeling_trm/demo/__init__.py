"""A static page on which a trained model solves puzzles in the visitor's own browser, step by step, and its server.

page/          what every page is made of: HTML, CSS and JavaScript modules, without a framework or a build step
runtime.py     onnxruntime-web, which runs the exported supervision step: taken from npm once, checked, cached
contents.py    what a page knows: the models with what their cards say, and puzzles from easy to hardest
build.py       the folder of static files that all of this makes, ready for a Space or any web server
serving.py     the same folder on 127.0.0.1
"""
