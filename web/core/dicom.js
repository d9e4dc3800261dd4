// What one DICOM file says: single-frame MR images whose pixels are not packed, little-endian. Everything else is refused.
import { BadInput, COMMAND } from "./errors.js";
import { refuseSizes } from "./grid.js";

const START = 132;  // bytes of a preamble and its "DICM"
const IMPLICIT = "1.2.840.10008.1.2", EXPLICIT = "1.2.840.10008.1.2.1";
const ENDLESS = 0xffffffff;  // the length of what ends with a delimiter
const LONG = new Set(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"]);
const ITEM = 0xfffee000, ITEM_ENDS = 0xfffee00d, SEQUENCE_ENDS = 0xfffee0dd, PIXELS = 0x7fe00010;
const NAMES = {
  0x00020010: "TransferSyntaxUID", 0x00080008: "ImageType", 0x00080060: "Modality", 0x00089208: "ComplexImageComponent",
  0x00180023: "MRAcquisitionType", 0x00180050: "SliceThickness", 0x00180081: "EchoTime", 0x00180086: "EchoNumbers",
  0x00180088: "SpacingBetweenSlices", 0x0020000e: "SeriesInstanceUID", 0x00200011: "SeriesNumber",
  0x00200032: "ImagePositionPatient", 0x00200037: "ImageOrientationPatient", 0x00200100: "TemporalPositionIdentifier",
  0x00280002: "SamplesPerPixel", 0x00280004: "PhotometricInterpretation", 0x00280008: "NumberOfFrames", 0x00280010: "Rows",
  0x00280011: "Columns", 0x00280030: "PixelSpacing", 0x00280100: "BitsAllocated", 0x00280101: "BitsStored",
  0x00280102: "HighBit", 0x00280103: "PixelRepresentation", 0x00281052: "RescaleIntercept", 0x00281053: "RescaleSlope",
};
const SHORTS = new Set([
  "SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
]);
const ARRAYS = { 8: [Uint8Array, Int8Array], 16: [Uint16Array, Int16Array], 32: [Uint32Array, Int32Array] };  // by PixelRepresentation

// The slice in a file; null for what is no MR image.
export function read(name, buffer) {
  const bytes = new Uint8Array(buffer);
  if (String.fromCharCode(...bytes.subarray(START - 4, START)) !== "DICM") {
    if (/\.(dcm|dicom|ima)$/i.test(name)) {
      throw new BadInput(`${name}: it does not begin as DICOM does, with a preamble; remove it, or ${COMMAND}`);
    }
    return null;
  }
  let said;
  try {
    said = elements(bytes);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new BadInput(`${name}: it is cut off or damaged; copy it again`);
  }
  if (said.Modality?.[0] !== "MR" || !said.Rows) return null;
  return slice(name, said);
}

// Elements up to the pixels: texts or numbers, each a list; `pixels` are bytes, `packed` if their length is not stated.
function elements(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), found = {};
  let at = START, explicit = true;
  while (at < bytes.length) {
    const group = view.getUint16(at, true);
    if (found.TransferSyntaxUID && group !== 2) {
      const [syntax] = found.TransferSyntaxUID;
      if (![IMPLICIT, EXPLICIT].includes(syntax)) return { ...found, ...peek(found), syntax };
      explicit = syntax === EXPLICIT;
    }
    const element = head(view, at, explicit);
    if (element.tag === PIXELS) {
      return { ...found, packed: element.length === ENDLESS, pixels: inside(bytes, element.start, element.length) };
    }
    const name = NAMES[element.tag];
    if (name && element.length !== ENDLESS) found[name] = values(view, bytes, element, name);
    at = element.length === ENDLESS ? afterSequence(view, element.start, explicit) : element.start + element.length;
  }
  return found;
}

// Of a file that is packed as a whole or big-endian nothing more is read; it is told as an MR image that is refused.
const peek = () => ({ Modality: ["MR"], Rows: [1] });

function head(view, at, explicit) {
  const tag = ((view.getUint16(at, true) << 16) | view.getUint16(at + 2, true)) >>> 0;
  if (!explicit || tag >>> 16 === 0xfffe) return { tag, start: at + 8, length: view.getUint32(at + 4, true) };
  const kind = String.fromCharCode(view.getUint8(at + 4), view.getUint8(at + 5));
  if (LONG.has(kind)) return { tag, kind, start: at + 12, length: view.getUint32(at + 8, true) };
  return { tag, kind, start: at + 8, length: view.getUint16(at + 6, true) };
}

// The byte behind a sequence of items that says where it ends by a delimiter.
function afterSequence(view, at, explicit) {
  for (;;) {
    const item = head(view, at, explicit);
    if (item.tag === SEQUENCE_ENDS) return item.start;
    if (item.tag !== ITEM) throw new RangeError("expected an item");
    at = item.length === ENDLESS ? afterItem(view, item.start, explicit) : item.start + item.length;
  }
}

function afterItem(view, at, explicit) {
  for (;;) {
    const element = head(view, at, explicit);
    if (element.tag === ITEM_ENDS) return element.start;
    const nested = explicit && element.kind !== "UN";  // an unknown one of no stated length is implicit inside
    at = element.length === ENDLESS ? afterSequence(view, element.start, nested) : element.start + element.length;
  }
}

function inside(bytes, start, length) {
  return bytes.subarray(start, length === ENDLESS ? bytes.length : start + length);
}

function values(view, bytes, { start, length }, name) {
  if (start + length > bytes.length) throw new RangeError("cut off");
  if (SHORTS.has(name)) return Array.from({ length: length >> 1 }, (_, i) => view.getUint16(start + 2 * i, true));
  const text = new TextDecoder("latin1").decode(bytes.subarray(start, start + length));
  return text.split("\\").map((part) => part.replace(/^[\0 ]+|[\0 ]+$/g, "")).filter((part, _, all) => part || all.length > 1);
}

function numbers(name, said, tag, count = 1, absent = undefined) {
  if (!said[tag]?.length && absent !== undefined) return Array(count).fill(absent);
  const found = (said[tag] ?? []).map((value) => (value === "" ? NaN : Number(value)));
  if (found.length !== count || !found.every(Number.isFinite)) {
    const many = `${count} finite number${count > 1 ? "s" : ""}`;
    throw new BadInput(`${name}: expected ${many} as ${tag}, got ${(said[tag] ?? ["none"]).join("\\")}; correct its header`);
  }
  return found;
}

// One slice: where it lies (mm, LPS+), what it belongs to, and its pixels row by row as they are stored.
function slice(name, said) {
  if (said.syntax) {
    throw new BadInput(`${name}: expected plain little-endian DICOM, got the transfer syntax ${said.syntax}; ${COMMAND}`);
  }
  const pixels = stored(name, said), position = numbers(name, said, "ImagePositionPatient", 3);
  const way = numbers(name, said, "ImageOrientationPatient", 6), [along, down] = [way.slice(0, 3), way.slice(3)];
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  if (Math.max(Math.abs(dot(along, along) - 1), Math.abs(dot(down, down) - 1), Math.abs(dot(along, down))) > 0.01) {
    throw new BadInput(`${name}: expected two directions of length 1 at right angles, got ${way}; correct ImageOrientationPatient`);
  }
  const spacing = numbers(name, said, "PixelSpacing", 2);
  refuseSizes(name, spacing, "PixelSpacing");
  const [slope] = numbers(name, said, "RescaleSlope", 1, 1), [intercept] = numbers(name, said, "RescaleIntercept", 1, 0);
  return {
    name, position, pixels,
    shape: [said.Columns[0], said.Rows[0]],
    series: (said.SeriesInstanceUID ?? []).join("\\"),
    number: (said.SeriesNumber ?? []).join("\\"),
    stack: [numbers(name, said, "EchoTime", 1, 0), (said.EchoNumbers ?? []).join("/"),
      numbers(name, said, "TemporalPositionIdentifier", 1, 0)].join(" "),
    plane: [along.map((value) => value * spacing[1]), down.map((value) => value * spacing[0])],
    thickness: numbers(name, said, "SliceThickness", 1, 0)[0],
    between: numbers(name, said, "SpacingBetweenSlices", 1, 0)[0],
    scaling: slope ? [slope, intercept] : [1, 0],
    flat: said.MRAcquisitionType?.[0] === "2D",
    components: [said.ImageType?.[2], ...(said.ComplexImageComponent ?? [])].filter(Boolean),
  };
}

function stored(name, said) {
  const colours = (said.PhotometricInterpretation ?? ["none"]).join("\\");
  if (colours !== "MONOCHROME2" || said.SamplesPerPixel?.[0] !== 1) {
    throw new BadInput(`${name}: expected a grey-scale image (MONOCHROME2), got ${colours}; leave it out, or invert it first`);
  }
  if (["MOSAIC", "VFRAME"].some((kind) => said.ImageType?.includes(kind))) {
    throw new BadInput(`${name}: expected a slice, got a mosaic of many; convert the series to NIfTI (dcm2niix)`);
  }
  if (numbers(name, said, "NumberOfFrames", 1, 1)[0] !== 1) {
    throw new BadInput(`${name}: expected one slice in a file, got an image of many frames; ${COMMAND}`);
  }
  const [rows] = numbers(name, said, "Rows"), [columns] = numbers(name, said, "Columns");
  const [bits] = numbers(name, said, "BitsAllocated"), [used] = numbers(name, said, "BitsStored", 1, bits);
  const [high] = numbers(name, said, "HighBit", 1, used - 1), array = ARRAYS[bits]?.[numbers(name, said, "PixelRepresentation", 1, 0)[0]];
  if (!array || said.packed || !said.pixels || high !== used - 1 || used < 1 || used > bits) {
    throw new BadInput(`${name}: its pixels are stored in a way that this page does not read; ${COMMAND}`);
  }
  const need = rows * columns * array.BYTES_PER_ELEMENT, has = said.pixels.length;
  if (has < need || has >= need + need / rows || !need) {
    throw new BadInput(`${name}: its header promises ${need} bytes of pixels, but it has ${has}; copy it again`);
  }
  return new array(said.pixels.slice(0, need).buffer);
}
