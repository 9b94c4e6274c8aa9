import { useSignal } from "@preact/signals";
import { get, post } from "../lib/api";
import type { Agreement, Annotator } from "../lib/contract";
import { ago, type Key, number, percent, t, word } from "../lib/i18n";
import { complain, notify } from "../lib/notices";
import { listed, ORDERS, type Order, questionName, runOf } from "../lib/people";
import { may } from "../lib/session";
import { Empty, Head, Loaded, Search, useLoad } from "../parts/basics";
import { Interval, Sparkline } from "../parts/chart";
import { Ask, Dialog } from "../parts/dialog";

type Found = { agreement: Agreement[]; items: Annotator[]; newest: number };

const FEW = 8; // people, among whom nobody has to be looked for

export function Annotators() {
  const found = useLoad(() => get<Found>("/api/annotators"));
  const opened = useSignal<string | null>(null);
  const excluding = useSignal<Annotator | null>(null);
  const search = useSignal("");
  const order = useSignal<Order>("attention");
  const act = (path: string, body: unknown, done: string) =>
    void post(path, body).then(() => {
      notify(done, "good");
      void found.reload();
    }, complain);
  return (
    <div class="screen annotators">
      <Head title={t("annotators")} lead={t("annotators.lead")} />
      <Loaded of={found} lines={7}>
        {({ agreement, items, newest }) => (
          <>
            {agreement.length > 0 && <AgreementRow agreement={agreement} />}
            {items.length > FEW && (
              <div class="filters">
                <Search label={t("annotators.find")} text={search} />
                <select
                  aria-label={t("annotators.order")}
                  value={order.value}
                  onChange={(event) => (order.value = event.currentTarget.value as Order)}
                >
                  {ORDERS.map((name) => (
                    <option key={name} value={name}>
                      {t(`annotators.order.${name}` as Key)}
                    </option>
                  ))}
                </select>
              </div>
            )}
            {items.length === 0 ? (
              <Empty title={t("annotators.empty")} text={t("annotators.empty_text")} />
            ) : (
              <People
                people={listed(items, search.value, order.value)}
                onOpen={(one) => (opened.value = one.id)}
                onExclude={(one) => (excluding.value = one)}
                onInclude={(one) => act(`/api/annotators/${one.id}/include`, {}, t("annotators.included"))}
              />
            )}
            {items.reduce((sum, one) => sum + one.judgments, 0) >= newest && (
              <p class="note">{t("annotators.newest", { n: newest })}</p>
            )}
            {opened.value && (
              <Details
                one={items.find((item) => item.id === opened.value)!}
                onClose={() => (opened.value = null)}
              />
            )}
          </>
        )}
      </Loaded>
      {excluding.value && (
        <Ask
          title={t("annotators.exclude_title", { name: excluding.value.name })}
          label={t("reason")}
          action={t("annotators.exclude")}
          bad
          onClose={() => (excluding.value = null)}
          onAnswer={(reason) => {
            act(`/api/annotators/${excluding.value!.id}/exclude`, { reason }, t("annotators.excluded_done"));
            excluding.value = null;
          }}
        />
      )}
    </div>
  );
}

const People = ({
  people,
  onOpen,
  onExclude,
  onInclude,
}: {
  people: Annotator[];
  onOpen: (one: Annotator) => void;
  onExclude: (one: Annotator) => void;
  onInclude: (one: Annotator) => void;
}) => (
  <div class="scroll" tabIndex={0} role="region" aria-label={t("annotators")}>
    <table class="table">
      <thead>
        <tr>
          <th scope="col">{t("name")}</th>
          <th scope="col" class="num">
            {t("annotators.judgments")}
          </th>
          <th scope="col">{t("annotators.reliability")}</th>
          <th scope="col" class="num">
            {t("annotators.gold")}
          </th>
          <th scope="col" class="num">
            {t("annotators.consistency")}
          </th>
          <th scope="col">{t("annotators.daily")}</th>
          <th scope="col">
            <span class="hidden">{t("actions")}</span>
          </th>
        </tr>
      </thead>
      <tbody>
        {people.map((one) => (
          <Row
            key={one.id}
            one={one}
            onOpen={() => onOpen(one)}
            onExclude={() => onExclude(one)}
            onInclude={() => onInclude(one)}
          />
        ))}
      </tbody>
    </table>
    {people.length === 0 && <p class="soft">{t("annotators.nobody")}</p>}
  </div>
);

const AgreementRow = ({ agreement }: { agreement: Agreement[] }) => (
  <section class="card" aria-label={t("agreement")}>
    <dl class="figures slim">
      {agreement.map(({ kind, criterion, alpha, low, high, items }) => (
        <div key={`${kind} ${criterion}`}>
          <dt>
            {questionName(kind)}
            {criterion && criterion !== "overall" && ` · ${word("criterion", criterion)}`}
            <span class="soft"> · {t("annotators.items", { n: items })}</span>
          </dt>
          <dd>
            {alpha === null ? "–" : number(alpha, 2)}
            {alpha !== null && (
              <>
                <Interval value={alpha} low={low} high={high} />
                {low !== null && high !== null && (
                  <small class="soft">
                    {number(low, 2)}–{number(high, 2)}
                  </small>
                )}
              </>
            )}
          </dd>
        </div>
      ))}
    </dl>
    <p class="note">{t("agreement.note")}</p>
  </section>
);

function Row({
  one,
  onOpen,
  onExclude,
  onInclude,
}: {
  one: Annotator;
  onOpen: () => void;
  onExclude: () => void;
  onInclude: () => void;
}) {
  return (
    <tr class={one.excluded ? "excluded" : ""}>
      <th scope="row">
        <button type="button" class="link" onClick={onOpen}>
          {one.name}
        </button>
        <span class="badges">
          {one.drift && <span class="badge warn">{t("annotators.drift")}</span>}
          {one.straight_lining && (
            <span class="badge warn" title={runOf(one.straight_lining)}>
              {t("annotators.straight")}
            </span>
          )}
          {one.excluded && (
            <span class="badge bad" title={one.excluded.reason}>
              {t("annotators.excluded")}
            </span>
          )}
        </span>
      </th>
      <td class="num" data-label={t("annotators.judgments")}>
        {number(one.judgments)}
      </td>
      <td data-label={t("annotators.reliability")}>
        {one.reliability === null ? (
          <span class="soft">{t("annotators.too_few")}</span>
        ) : (
          <span class="reliability">
            <b>{number(one.reliability, 2)}</b>
            <Interval value={one.reliability} low={one.low} high={one.high} />
            {one.low !== null && one.high !== null && (
              <small class="soft">
                {number(one.low, 2)}–{number(one.high, 2)}
              </small>
            )}
          </span>
        )}
      </td>
      <td class="num" data-label={t("annotators.gold")}>
        {share(one.gold_accuracy)}
      </td>
      <td class="num" data-label={t("annotators.consistency")}>
        {share(one.consistency)}
      </td>
      <td data-label={t("annotators.daily")}>
        <Sparkline
          values={one.daily}
          label={t("annotators.daily_alt", { n: one.daily.reduce((sum, count) => sum + count, 0) })}
        />
      </td>
      <td class="end">
        {may("manager") &&
          (one.excluded ? (
            <button type="button" class="quiet" onClick={onInclude}>
              {t("annotators.include")}
            </button>
          ) : (
            <button type="button" class="quiet" onClick={onExclude}>
              {t("annotators.exclude")}
            </button>
          ))}
      </td>
    </tr>
  );
}

const share = (value: number | null) => (value === null ? "–" : percent(value));
const figure = (value: number | null) => (value === null ? "–" : number(value, 2));

function Details({ one, onClose }: { one: Annotator; onClose: () => void }) {
  const traits: [string, string, string][] = [
    [t("trait.severity"), figure(one.severity), t("trait.severity_note")],
    [t("trait.discrimination"), figure(one.discrimination), t("trait.discrimination_note")],
    [t("trait.lapse"), share(one.lapse), t("trait.lapse_note")],
    [t("trait.side_bias"), figure(one.side_bias), t("trait.side_bias_note")],
    [
      t("trait.straight_lining"),
      one.straight_lining ? runOf(one.straight_lining) : "–",
      t("trait.straight_lining_note"),
    ],
  ];
  return (
    <Dialog title={one.name} onClose={onClose}>
      <p class="soft">
        {word("role", one.role)} ·{" "}
        {Object.entries(one.by_kind)
          .map(([kind, count]) => `${word("kind", kind)} ${number(count)}`)
          .join(" · ")}
      </p>
      <dl class="traits">
        {traits.map(([name, value, note]) => (
          <div key={name}>
            <dt>
              {name}
              <small>{note}</small>
            </dt>
            <dd class={value.length > 6 ? "words" : ""}>{value}</dd>
          </div>
        ))}
      </dl>
      {one.excluded && (
        <p class="trouble slim">
          {t("annotators.excluded_since", { when: ago(one.excluded.since), who: one.excluded.by })}{" "}
          {one.excluded.reason}
        </p>
      )}
    </Dialog>
  );
}
