// What a user can mend. The text is one line: expected what, got what, do what.
export class BadInput extends Error {}

export const COMMAND = "use the command, seran upscale";

export function counted(number, thing) {
  return `${number.toLocaleString("en-US")} ${thing}${number === 1 ? "" : "s"}`;
}
