// Gold questions as people paste them from a spreadsheet: question, better answer, worse answer.

export type Gold = { prompt: string; better: string; worse: string };

/** The questions of a table, and the first line that is not one; lines without anything are passed over. */
export function readGold(table: string): { gold: Gold[]; wrong: number | null } {
  const gold: Gold[] = [];
  for (const [at, line] of table.split(/\r?\n/).entries()) {
    if (!line.trim()) continue;
    const cells = line.split("\t").map((cell) => cell.trim());
    const [prompt, better, worse] = cells;
    if (cells.length !== 3 || !prompt || !better || !worse || better === worse)
      return { gold, wrong: at + 1 };
    gold.push({ prompt, better, worse });
  }
  return { gold, wrong: null };
}
