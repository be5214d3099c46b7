"""Run a page as a user does who has the package and no repository: run_page.py PAGE ARCHIVE.

Its cells run one after the other in this process. `results/` comes from ARCHIVE, where the page
would fetch it from the repository's address. Cells marked `#| eval: false` are left out, except the
first one, which installs the package where it is missing. Needs IPython, and the package itself.
"""

import io
import json
import sys
import types
import urllib.request
from pathlib import Path

page, archive = sys.argv[1:]
sys.path[0] = ""  # the folder where it runs, not that of the scripts
sys.modules["google.colab"] = types.ModuleType("google.colab")
from selectq.colab import archive_address  # noqa: E402  (it may ask whether this is Colab)


def urlopen(url, real=urllib.request.urlopen):
    """The archive in the place of the network; files of the page's own as ever."""
    if url == archive_address():
        return io.BytesIO(Path(archive).read_bytes())
    assert url.startswith("file:"), url
    return real(url)


urllib.request.urlopen = urlopen
from IPython.core.interactiveshell import InteractiveShell  # noqa: E402

shell = InteractiveShell.instance()
for cell in json.loads(Path(page).read_text(encoding="utf-8"))["cells"]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "code" and ("eval: false" not in source or "google.colab" in source):
        shell.run_cell(source).raise_error()
