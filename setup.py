"""Package selectq from settings.ini."""

import sys
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
LICENSES = {"apache2": "Apache-2.0"}
STATUSES = {"3": "3 - Alpha", "4": "4 - Beta", "5": "5 - Production/Stable"}

parser = ConfigParser()
parser.read(ROOT / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]
name, lib = cfg["lib_name"], cfg["lib_path"]
readme = ROOT / "README.md"
address = f"https://github.com/{cfg['user']}/{cfg['repo']}"

# nbdev imports the renderer of the site from scripts/, which only an editable install has.
packages = find_packages(ROOT, include=[lib, f"{lib}.*"]) + ["scripts"] * (
    "editable_wheel" in sys.argv
)

# Every file below the package that is not Python: weights, tables, JSON.
data = sorted(
    p.relative_to(ROOT / lib).as_posix()
    for p in (ROOT / lib).rglob("*")
    if p.is_file()
    and p.suffix != ".py"
    and not {"__pycache__", ".ipynb_checkpoints"} & set(p.parts)
)

setup(
    name=name,
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"] or None,
    url=address,
    project_urls={"Documentation": f"https://{cfg['user']}.github.io/{cfg['repo']}"},
    license=LICENSES[cfg["license"]],
    license_files=["LICENSE"],
    keywords=cfg["keywords"].split(),
    classifiers=[
        f"Development Status :: {STATUSES[cfg['status']]}",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        "Programming Language :: Python :: 3",
        "Typing :: Typed",
    ],
    packages=packages,
    package_data={lib: data},
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require={
        "dev": cfg["dev_requirements"].split(),
        "explorer": cfg["explorer_requirements"].split(),
        "onnx": cfg["onnx_requirements"].split(),
        "openvino": cfg["openvino_requirements"].split(),
    },
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        # lets the documentation link `names` to their page; nbdev looks it up by the package's name
        "nbdev": [f"{lib}={lib}._modidx:d"],
    },
    zip_safe=False,
)
