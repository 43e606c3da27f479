import { useMediaQuery } from "@mantine/hooks";
import { IconArrowDown, IconArrowUp, IconSelector } from "@tabler/icons-react";
import { createSortedRowModel, rowSortingFeature, tableFeatures, useTable } from "@tanstack/react-table";
import { useVirtualizer } from "@tanstack/react-virtual";
import { useMemo, useRef, type KeyboardEvent, type ReactNode } from "react";

export type Column<T> = {
  id: string;
  head: string;
  /** A track of CSS grid, such as minmax(160px, 2fr). */
  width: string;
  /** What rows are sorted by; a column without it is not sorted. */
  value?: (row: T) => string | number;
  cell: (row: T) => ReactNode;
  /** Left out where there is little width. */
  wide?: boolean;
  /** Where it stands on a phone, which has no room for columns: what the row is, how it is, or the line below. */
  phone?: "title" | "side" | "line";
};

/** The columns of a phone's row, in the order in which they are read; those without a place there are left out. */
function phoneOf<T>(columns: Column<T>[]): Column<T>[] {
  const said = columns.some((c) => c.phone);
  const place = (c: Column<T>, i: number) => c.phone ?? (i === 0 && !said ? "title" : c.id === "state" ? "side" : i < 3 && !said ? "line" : undefined);
  const placed = columns.map((c, i) => ({ ...c, phone: place(c, i) }));
  return (["title", "side", "line"] as const).flatMap((p) => placed.filter((c) => c.phone === p)) as Column<T>[];
}

const collator = new Intl.Collator("en", { numeric: true });
const compare = (x: unknown, y: unknown) =>
  typeof x === "number" && typeof y === "number" ? x - y : collator.compare(String(x), String(y));

const features = tableFeatures({ rowSortingFeature, sortedRowModel: createSortedRowModel() });

/** "name" or "-name" */
export type Sort = string | undefined;

type Props<T> = {
  label: string;
  rows: T[];
  columns: Column<T>[];
  rowKey: (row: T) => string;
  sort?: Sort;
  onSort?: (sort: Sort) => void;
  empty?: ReactNode;
  /** What else stands on the page, in pixels: the list has the rest of the window's height. */
  around?: number;
};

/** A list of any length: only the rows in sight are in the document. */
export function DataTable<T extends object>({ label, rows, columns, rowKey, sort, onSort, empty, around = 270 }: Props<T>) {
  const narrow = useMediaQuery("(max-width: 62em)", false, { getInitialValueInEffect: false });
  const phone = useMediaQuery("(max-width: 36em)", false, { getInitialValueInEffect: false });
  const shown = useMemo(() => (phone ? phoneOf(columns) : narrow ? columns.filter((c) => !c.wide) : columns), [columns, narrow, phone]);
  const rowHeight = phone ? 64 : 48;
  const headHeight = phone ? 0 : 42;
  const table = useTable({
    features,
    data: rows,
    getRowId: rowKey,
    columns: useMemo(
      () =>
        columns.map((c) => ({
          id: c.id,
          accessorFn: (row: T) => c.value?.(row) ?? "",
          enableSorting: !!c.value,
          sortFn: (a: { getValue: (id: string) => unknown }, b: { getValue: (id: string) => unknown }, id: string) =>
            compare(a.getValue(id), b.getValue(id)),
        })),
      [columns],
    ),
    state: { sorting: sort ? [{ id: sort.replace(/^-/, ""), desc: sort.startsWith("-") }] : [] },
  });
  const sorted = table.getRowModel().rows;
  const box = useRef<HTMLDivElement>(null);
  const virtual = useVirtualizer({
    count: sorted.length,
    getScrollElement: () => box.current,
    estimateSize: () => rowHeight,
    overscan: 8,
    getItemKey: (i) => sorted[i]?.id ?? i,
  });
  const least = (c: Column<T>) => Number(/(\d+)px/.exec(c.width)?.[1] ?? 80);
  const tracks = phone ? { minWidth: 0 } : { gridTemplateColumns: shown.map((c) => c.width).join(" "), minWidth: shown.reduce((n, c) => n + least(c), 0) };

  const step = (e: KeyboardEvent) => {
    if (e.key !== "ArrowDown" && e.key !== "ArrowUp") return;
    const at = (e.target as HTMLElement).closest<HTMLElement>("[data-index]");
    if (!at) return;
    e.preventDefault();
    const next = Math.min(sorted.length - 1, Math.max(0, Number(at.dataset["index"]) + (e.key === "ArrowDown" ? 1 : -1)));
    virtual.scrollToIndex(next);
    requestAnimationFrame(() =>
      box.current?.querySelector<HTMLElement>(`[data-index="${next}"] :is(a, button)`)?.focus({ preventScroll: true }),
    );
  };

  const cell = (row: T) => (c: Column<T>) => (
    <div key={c.id} role="cell" className="cut" data-place={c.phone}>
      {c.cell(row)}
    </div>
  );

  if (rows.length === 0 && empty) return <div className="card">{empty}</div>;
  return (
    <div
      className="grid"
      data-phone={phone || undefined}
      role="table"
      aria-label={label}
      aria-rowcount={sorted.length + 1}
      ref={box}
      tabIndex={0}
      onKeyDown={step}
      style={{ height: `min(${headHeight + 2 + sorted.length * rowHeight}px, max(320px, 100dvh - ${around}px))` }}
    >
      {!phone && <div role="rowgroup" style={{ display: "contents" }}>
        <div className="grid-row grid-head" role="row" aria-rowindex={1} style={tracks}>
          {shown.map((c) => {
            const by = sort?.replace(/^-/, "") === c.id;
            const down = by && sort?.startsWith("-");
            return (
              <div key={c.id} role="columnheader" aria-sort={by ? (down ? "descending" : "ascending") : undefined} className="cut">
                {c.value && onSort ? (
                  <button type="button" onClick={() => onSort(by ? (down ? undefined : `-${c.id}`) : c.id)}>
                    {c.head}
                    {by ? down ? <IconArrowDown size={13} /> : <IconArrowUp size={13} /> : <IconSelector size={13} opacity={0.5} />}
                  </button>
                ) : (
                  c.head
                )}
              </div>
            );
          })}
        </div>
      </div>}
      <div className="grid-body" role="rowgroup" style={{ height: virtual.getTotalSize(), minWidth: tracks.minWidth, position: "relative" }}>
        {virtual.getVirtualItems().map((v) => {
          const row = sorted[v.index]?.original;
          if (!row) return null;
          return (
            <div
              key={v.key}
              data-index={v.index}
              className="grid-row"
              role="row"
              aria-rowindex={v.index + 2}
              data-last={v.index === sorted.length - 1 || undefined}
              style={{ ...tracks, height: rowHeight, transform: `translateY(${v.start}px)` }}
            >
              {phone ? (
                <>
                  <div className="row-top">{shown.filter((c) => c.phone !== "line").map(cell(row))}</div>
                  <div className="row-line">{shown.filter((c) => c.phone === "line").map(cell(row))}</div>
                </>
              ) : (
                shown.map(cell(row))
              )}
            </div>
          );
        })}
      </div>
    </div>
  );
}
