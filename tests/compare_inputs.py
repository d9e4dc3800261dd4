"""The made-up scans that `compare_checkouts.py` gives to both checkouts: all of them from fixed seeds."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK


def phantom(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Bodies with soft edges, in noise."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    image = rng.normal(0, 6, shape)
    for _ in range(12):
        middle, radius = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.15, 0.7, 3)
        distance = sum(((a - m) / r) ** 2 for a, m, r in zip(axes, middle, radius, strict=True))
        image += rng.uniform(50, 400) / (1 + np.exp(9 * np.minimum(distance, 5) - 9))
    return np.abs(image).astype(np.float32)


def zero_filled(image: np.ndarray, *parts: float) -> np.ndarray:
    """An image of which only these parts of k-space, as fractions of Nyquist, were measured."""
    rows, columns = (np.abs(np.fft.fftfreq(n)) * 2 <= p for n, p in zip(image.shape, parts, strict=False))
    kept = np.fft.fft2(image, axes=(0, 1)) * np.outer(rows, columns)[:, :, None]
    return np.abs(np.fft.ifft2(kept, axes=(0, 1))).astype(np.float32)


def write_dicom(folder: Path, data: np.ndarray, affine: np.ndarray) -> None:
    """Write a volume of int16 as a series of files, one a slice."""
    folder.mkdir()
    lps, size = np.diag([-1.0, -1, 1, 1]) @ affine, nib.affines.voxel_sizes(affine)
    for z in range(data.shape[2]):
        header = pydicom.Dataset()
        elements = {
            "SOPClassUID": pydicom.uid.MRImageStorage, "SOPInstanceUID": f"1.2.826.0.1.{z + 1}",
            "StudyInstanceUID": "1.2.826.0.7", "SeriesInstanceUID": "1.2.826.0.1", "Modality": "MR",
            "FrameOfReferenceUID": "1.2.826.0.8", "SeriesNumber": 3, "SeriesDescription": "t2 tse",
            "PatientName": "Doe^Jane", "PatientID": "77", "StudyDate": "20200102", "EchoTime": 20,
            "SliceThickness": 3.3, "RescaleSlope": "0.5", "RescaleIntercept": "-3",
            "ImagePositionPatient": [f"{v:.9g}" for v in lps[:3] @ [0, 0, z, 1]],
            "ImageOrientationPatient": [f"{v:.9g}" for v in (lps[:3, :2] / size[:2]).T.ravel()],
            "PixelSpacing": [f"{size[1]:.9g}", f"{size[0]:.9g}"], "Rows": data.shape[1],
            "Columns": data.shape[0], "SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelRepresentation": 1,
            "PixelData": data[:, :, z].T.astype("<i2").tobytes(),
        }  # fmt: skip
        for name, value in elements.items():
            setattr(header, name, value)
        header.file_meta = pydicom.dataset.FileMetaDataset()
        header.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        header.save_as(folder / f"{z:04d}.dcm", enforce_file_format=True)


def write_inputs(root: Path) -> None:
    """Write the scans that the cases read: anisotropic, oblique and off-origin, all from fixed seeds."""
    turned = nib.eulerangles.euler2mat(0.47, -0.22, 0.31)
    affine = nib.affines.from_matvec(turned @ np.diag([0.9, 0.8, 3.3]), [-71.3, 22.9, 48.1])

    def save(data: np.ndarray, name: str, kind: Callable = nib.Nifti1Image, to: np.ndarray = affine) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(kind(data, to), root / name)

    whole = phantom((40, 36, 6), 0).astype(np.int16)
    image = nib.Nifti1Image(whole, affine)
    image.header.set_slope_inter(0.5, 0)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"made for comparison"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"keep me"))
    image.set_sform(affine, 2)
    image.set_qform(affine, 1)
    nib.save(image, root / "scan.nii.gz")
    finer = nib.affines.from_matvec(turned @ np.diag([0.5, 0.45, 3.3]), (affine @ [1, 2, 0.3, 1])[:3])
    save(np.zeros((60, 58, 5), np.uint8), "reference.nii.gz", to=finer)
    save(phantom((20, 18, 4), 1), "tiny.nii.gz")
    save(zero_filled(phantom((60, 56, 6), 2), 0.7, 0.8), "filled.nii.gz")
    save(np.stack([phantom((28, 24, 4), i) for i in (3, 4, 5)], -1), "series.nii.gz")
    save(whole, "pair.hdr", nib.Nifti1Pair)
    save(whole, "two.nii", nib.Nifti2Image)
    save(np.where(whole > 400, np.nan, whole).astype(np.float32), "holes.nii.gz")
    save((whole > 200).astype(np.uint8) * 3, "labels.nii.gz")
    save(whole.astype(np.float32), "scan.mgz", nib.MGHImage)
    image = SimpleITK.GetImageFromArray(whole.T)
    image.SetDirection((np.diag([-1.0, -1, 1]) @ turned).ravel().tolist())
    image.SetSpacing([0.9, 0.8, 3.3])
    image.SetOrigin([71.3, -22.9, 48.1])
    for name in ("scan.nrrd", "scan.mha"):
        SimpleITK.WriteImage(image, str(root / name), useCompression=True)
    write_dicom(root / "study", whole, affine)
    save(phantom((32, 28, 4), 6), "scans/a.nii.gz")
    save(phantom((28, 32, 4), 7), "scans/b.nii")
    (root / "scans" / "bad.nii.gz").write_bytes(b"not a scan")
    save(whole, "raw/sub-01/anat/sub-01_T1w.nii.gz")
    save(phantom((32, 36, 5), 8), "raw/sub-02/ses-1/anat/sub-02_ses-1_T2w.nii.gz")
    stated = {"Name": "made", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (root / "raw" / "dataset_description.json").write_text(json.dumps(stated))
    (root / "raw" / "T2w.json").write_text(json.dumps({"EchoTime": 0.08, "Manufacturer": "none"}))
    table = "split,path,contrast,subject\n"
    for i in range(1, 9):  # by the hashes of their names, sub-02 is for testing and sub-04 for validation
        data, contrast = phantom((64, 60, 6), 10 + i), ("T1", "T2")[i % 2]
        name, split = f"subjects/sub-{i:02d}_{contrast}w.nii.gz", {1: "test", 3: "val"}.get(i, "train")
        save(zero_filled(data, 0.85, 0.9) if i < 3 else data, name)
        table += f"{split},{name},{contrast},sub-{i:02d}\n"
    (root / "subjects.csv").write_text(table)
