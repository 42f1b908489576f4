from .build import *  # temporary
import sys, time
from pathlib import Path

t = time.time()
print(build_page(sys.argv[2:], Path(sys.argv[1]), overwrite=True), time.time() - t)
