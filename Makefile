# make demo: install what a user needs and do the main job.   make test: install the rest and check everything.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint quick docs viewer web dist clean

demo: .venv/user.stamp
	$(BIN)/seran demo

# Tests run in as many processes as there are cores, at most 4, with one thread in each: threads that wait for a core which another
# process has make all of them slow.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal
test: lint
	$(PYTEST) -m "not slow"
	$(PYTEST) -m slow

quick: .venv/developer.stamp
	$(PYTEST) -m "not slow"

lint: .venv/developer.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site of the pages, in build/site; nothing in it is loaded from another address. What makes it has an environment of its own.
SITE := build/docs-venv
docs: $(SITE)/stamp
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict

$(SITE)/stamp: docs/requirements.txt constraints.txt
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r $<
	@touch $@

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/user.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@# Reports need it; where npm does not bring it, one line says so and the rest works.
	@$(MAKE) --no-print-directory viewer WITHOUT_NPM=0
	@touch $@

.venv/developer.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# Its networks are compared with ours. They import torch alone; torchvision, its requirement, may not fit this torch.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps torchsr
	@# Where npm does not bring the viewer of reports, tests that need it say so when they skip.
	@$(MAKE) --no-print-directory viewer WITHOUT_NPM=0
	@# The page for the browser, the same.
	@$(MAKE) --no-print-directory web WITHOUT_NPM=0
	@touch $@ .venv/user.stamp

# NiiVue, which reports carry inside them: one version, known by its SHA-256. Other bytes are always an error; where npm is
# missing or does not reach its registry, WITHOUT_NPM is the exit status.
VIEWER := src/seran/quality/viewer
WITHOUT_NPM := 1
viewer: $(VIEWER)/niivue.umd.js

$(VIEWER)/niivue.umd.js: $(VIEWER)/niivue.lock
	@rm -rf build/viewer $@ && mkdir -p build/viewer
	@read version digest < $< && cd build/viewer && \
	if ! npm pack --silent --fetch-retries=1 @niivue/niivue@$$version >/dev/null 2>&1; then \
	echo "no viewer, so no reports: npm is missing or did not bring @niivue/niivue@$$version (make viewer tries again)"; \
	exit $(WITHOUT_NPM); fi && \
	tar xzf *.tgz package/dist/niivue.umd.js && \
	$(PYTHON) -c "import hashlib, sys; data = open('package/dist/niivue.umd.js', 'rb').read(); \
	sys.exit(hashlib.sha256(data).hexdigest() != '$$digest' and '@niivue/niivue: not the bytes in $<')" && \
	mv package/dist/niivue.umd.js ../../$@ && touch ../../$@

# The page that sharpens in the browser (docs/browser.md), in a folder for any web server. ONNX Runtime comes from npm, one version
# whose files are known by their SHA-256; the rest as above.
PAGE := src/seran/apps/page
web: $(PAGE)/index.html

$(PAGE)/index.html: $(VIEWER)/niivue.umd.js $(VIEWER)/view.js $(VIEWER)/report.css $(wildcard web/*.* web/core/*) \
		src/seran/__init__.py src/seran/weights/shipped/fast-x2-bd.onnx
	@mkdir -p build/web
	@read version < web/onnxruntime-web.lock && package=build/web/onnxruntime-web-$$version.tgz && \
	if ! { [ -f $$package ] || (cd build/web && npm pack --silent --fetch-retries=1 onnxruntime-web@$$version >/dev/null 2>&1); }; then \
	echo "no page for the browser: npm is missing or did not bring onnxruntime-web@$$version (make web tries again)"; \
	exit $(WITHOUT_NPM); fi && \
	$(PYTHON) web/build.py $$package $(PAGE)

dist: .venv/user.stamp viewer web
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt hatchling
	$(BIN)/python -m hatchling build

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache seran-demo
