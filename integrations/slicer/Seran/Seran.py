"""A module for 3D Slicer that calls the command `seran` for the volume that is selected.

It needs Slicer 5 and has never been run inside it, but for stand-ins of its classes in seran's own tests. No
torch and no OpenCV come into Slicer. What needs no Slicer is in `SeranLib.command`.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import ctk
import qt
import slicer
from SeranLib import command
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget

KEPT = "Seran/program"  # name of the setting


class Seran(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = "Seran"
        parent.categories = ["Filtering"]
        parent.contributors = ["The seran developers"]
        parent.helpText = "Sharper MR images, on exactly the right grid. Research use, not a medical device."


class SeranWidget(ScriptedLoadableModuleWidget):
    """The panel: a volume, how it is sharpened, and what is said of the result."""

    def setup(self):
        """Make the panel."""
        super().setup()
        self.run = None
        self.volume = slicer.qMRMLNodeComboBox()
        self.volume.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.volume.showChildNodeTypes = False  # label maps are such nodes, too
        self.volume.addEnabled = self.volume.removeEnabled = False
        self.volume.setMRMLScene(slicer.mrmlScene)
        self.grid = qt.QComboBox()
        self.grid.addItems(list(command.GRIDS))
        self.more = qt.QLineEdit()
        self.more.toolTip = "options of seran upscale, such as --maps --uncertainty --threads 4"
        self.program = ctk.ctkPathLineEdit()
        self.program.filters = ctk.ctkPathLineEdit.Files
        self.program.currentPath = qt.QSettings().value(KEPT) or ""
        self.program.toolTip = "the program seran; empty: the one in Slicer's own Python"
        self.start, self.stop = qt.QPushButton("Sharpen"), qt.QPushButton("Cancel")
        self.start.clicked.connect(self.onStart)
        self.stop.clicked.connect(self.onStop)
        self.stop.enabled = False
        self.text = qt.QPlainTextEdit()
        self.text.readOnly = True
        form, panel = qt.QFormLayout(), qt.QWidget()
        panel.setLayout(form)
        rows = {
            "Volume": self.volume,
            "Result": self.grid,
            "Further options": self.more,
            "Program seran": self.program,
        }
        for name, widget in rows.items():
            form.addRow(name, widget)
        for widget in (self.start, self.stop, self.text):
            form.addRow(widget)
        self.layout.addWidget(panel)

    def cleanup(self):
        """End what is running; Slicer calls this when the module is closed."""
        self.onStop()

    def onStop(self):  # noqa: N802, of Qt's kind
        """End what is running."""
        if self.run is not None:
            self.run.stopped = True

    def onStart(self):  # noqa: N802
        """Sharpen the volume, and show result and record, or what is wrong."""
        node = self.volume.currentNode()
        if node is None:
            slicer.util.errorDisplay("Choose a volume first.")
            return
        named = self.program.currentPath.strip()
        qt.QSettings().setValue(KEPT, named)
        self.start.enabled, self.stop.enabled = False, True
        self.text.setPlainText("")
        self.run = Run(node, named, self.grid.currentText, self.more.text)
        try:
            self.text.setPlainText(self.run.result(self.text.appendPlainText))
        except (command.Problem, RuntimeError) as problem:  # the latter by Slicer's own reading and writing
            slicer.util.errorDisplay(str(problem))
        finally:
            self.start.enabled, self.stop.enabled, self.run = True, False, None


class Run:
    """One call of the command."""

    def __init__(self, node, named, grid, more):
        self.node, self.named, self.grid, self.more, self.stopped = node, named, grid, more, False

    def result(self, say):
        """Add the result and its maps to the scene, and return what its record says.

        Args:
            say: what to call with each line that the command prints.
        """
        with tempfile.TemporaryDirectory(prefix="seran-") as folder:
            scan, result = Path(folder, "scan.nii.gz"), Path(folder, "sharp.nii.gz")
            slicer.util.exportNode(self.node, str(scan))
            start = command.program(self.named, shutil.which("PythonSlicer") or sys.executable)
            line = command.words(start, scan, result, self.grid, self.more)
            variables = command.environment(self.named, os.environ)
            with contextlib.closing(command.running(line, variables)) as run:
                for text in run:
                    if text:
                        say(text)
                    slicer.app.processEvents()  # the Cancel button among them
                    if self.stopped:
                        return "Cancelled."
            record = command.record_of(result)
            for what, path in command.images_of(result).items():
                self._add(path, f"{self.node.GetName()} {what}", record)
            return command.told(record)

    def _add(self, path, title, record):
        node = slicer.util.loadVolume(str(path), {"name": title})
        node.SetAttribute("seran.record", json.dumps(record))  # kept with the scene
        node.SetAndObserveTransformNodeID(self.node.GetTransformNodeID())
        slicer.mrmlScene.RemoveNode(node.GetStorageNode())  # its file goes; Slicer offers to save the volume
