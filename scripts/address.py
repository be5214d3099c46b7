"""Give the repository another owner or name: in settings.ini, then wherever its address stands.

python scripts/address.py OWNER REPO
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import pages  # noqa: E402  (beside this file, wherever Python was started)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# What is written by hand and may hold an address, beside the notebooks.
BY_HAND = (
    "*.md",
    "*.cff",
    "*.toml",
    "*.yml",
    "*.css",
    ".github/**/*",
    "benchmarks/*.md",
    "nbs/*.yml",
)
# What nbdev makes: nbs/nbdev.yml (the site and its map of pages) and selectq/_modidx.py (source).
MADE = (
    "from nbdev.quarto import refresh_quarto_yml; from nbdev.doclinks import _build_modidx; "
    "refresh_quarto_yml(); _build_modidx()"
)


def set_names(root, owner, repository):
    """Write owner and repository into settings.ini and leave the rest of it alone."""
    path = root / "settings.ini"
    text = path.read_text(encoding="utf-8")
    for key, value in dict(user=owner, repo=repository).items():
        text, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        if count != 1:
            sys.exit(f"settings.ini has {count} lines `{key} = ...`; it needs one")
    path.write_text(text, encoding="utf-8")


def moved(text, old, new):
    """`text` with the addresses of the old repository turned into those of the new one."""
    (owner, repository), end = map(re.escape, old), r"(?![\w-]|\.\w)"
    text = re.sub(
        rf"(github(?:usercontent)?\.com/(?:github/)?){owner}/{repository}{end}",
        rf"\g<1>{new[0]}/{new[1]}",
        text,
    )
    return re.sub(rf"\b{owner}\.github\.io/{repository}{end}", f"{new[0]}.github.io/{new[1]}", text)


def change(root, owner, repository):
    """Give the repository at `root` another address."""
    for name in (owner, repository):
        if not NAME.fullmatch(name):
            sys.exit(f"{name!r} cannot be a name on GitHub; use letters, digits, '-', '_' and '.'")
    names = pages.settings(root)
    old, new = (names["owner"], names["repository"]), (owner, repository)
    set_names(root, owner, repository)
    notebooks = [root / p for p in pages.pages(root)]
    for path in {p for pattern in BY_HAND for p in root.glob(pattern) if p.is_file()} | set(
        notebooks
    ):
        text = path.read_text(encoding="utf-8")
        if (changed := moved(text, old, new)) != text:
            path.write_text(changed, encoding="utf-8")
    pages.refresh(root)
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}  # under it nbdev writes nothing
    subprocess.run([sys.executable, "-c", MADE], cwd=root, env=env, check=True)
    subprocess.run([sys.executable, root / "scripts" / "readme.py"], cwd=root, env=env, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("owner", help="user or organization on GitHub")
    parser.add_argument("repository", help="name of the repository")
    arguments = parser.parse_args()
    change(ROOT, arguments.owner, arguments.repository)
    print(f"the address is https://github.com/{arguments.owner}/{arguments.repository}")


if __name__ == "__main__":
    main()
