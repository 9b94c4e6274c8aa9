// The facts of the small world, to judge answers by: unfolded beside the chat.
import { useSignal } from "@preact/signals";
import type { World, WorldSection } from "../lib/contract";
import { t } from "../lib/i18n";
import { IconButton, Search } from "./basics";
import { Town } from "./town";

export function Facts({ world, onClose }: { world: World; onClose: () => void }) {
  const search = useSignal("");
  const wanted = search.value.trim().toLowerCase();
  const sections = world.sections
    .map((section) => ({
      ...section,
      rows: section.rows.filter((row) => row.some((cell) => cell.toLowerCase().includes(wanted))),
    }))
    .filter((section) => section.rows.length);
  return (
    <aside class="facts" aria-label={t("facts")}>
      <header>
        <div>
          <p class="eyebrow">{t("facts")}</p>
          <h2>{world.title}</h2>
        </div>
        <IconButton icon="close" label={t("close")} onClick={onClose} />
      </header>
      <Town lit={9} />
      <Search label={t("facts.search")} text={search} size={16} />
      {sections.map((section) => (
        <Section key={section.title} section={section} open={wanted !== ""} />
      ))}
      {!sections.length && <p class="soft">{t("facts.none")}</p>}
    </aside>
  );
}

const Section = ({ section, open }: { section: WorldSection; open: boolean }) => (
  <details open={open || undefined}>
    <summary>
      {section.title} <span class="soft">{section.rows.length}</span>
    </summary>
    <div class="scroll">
      <table>
        <thead>
          <tr>
            {section.columns.map((column) => (
              <th key={column} scope="col">
                {column}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {section.rows.map((row, index) => (
            <tr key={index}>
              {row.map((cell, column) => (
                <td key={column}>{cell}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  </details>
);
