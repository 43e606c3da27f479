import "uplot/dist/uPlot.min.css";
import { useComputedColorScheme } from "@mantine/core";
import { useEffect, useRef } from "react";
import UPlot from "uplot";

export type Line = { label: string; /** A colour of styles.css. */ color: string; values: (number | null)[]; fill?: boolean };
type Props = {
  /** What is seen, in words, for who does not see it. */
  label: string;
  /** Seconds since 1970. */
  at: number[];
  lines: Line[];
  /** A value as it is written at the axis and below the pointer. */
  write: (v: number) => string;
  from: number;
  to: number;
};

const height = 132;
const css = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
/** The colour that light-dark() gives now: a canvas does not know it. */
function colour(name: string, scheme: "light" | "dark"): string {
  const both = /^light-dark\((.+?),\s*([^,]+)\)$/.exec(css(name));
  return both ? ((scheme === "light" ? both[1] : both[2]) ?? "") : css(name);
}

/** Values without a neighbour, which no line goes through: they are points. */
const alone = (values: ArrayLike<number | null | undefined>) =>
  Array.from(values, (_, i) => i).filter((i) => values[i] != null && values[i - 1] == null && values[i + 1] == null);

/** Lines over time. What is not known is a gap. */
export default function Chart({ label, at, lines, write, from, to }: Props) {
  const scheme = useComputedColorScheme("light");
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<UPlot>(null);
  const range = useRef<[number, number]>([from, to]);
  range.current = [from, to];
  const writing = useRef(write);
  writing.current = write;
  const data = [at, ...lines.map((l) => l.values)] as UPlot.AlignedData;
  const now = useRef(data);
  now.current = data;
  const form = JSON.stringify(lines.map((l) => [l.label, l.color, l.fill]));

  useEffect(() => {
    const el = box.current;
    if (!el) return;
    const muted = colour("--mp-muted", scheme);
    const grid = { stroke: colour("--mp-border", scheme), width: 1 };
    const font = `11px ${css("--mantine-font-family") || "sans-serif"}`;
    const made = new UPlot(
      {
        width: el.clientWidth,
        height,
        padding: [8, 8, 0, 0],
        cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
        legend: { show: true, live: true },
        scales: { x: { time: true, range: () => range.current }, y: { range: (_, __, max) => [0, max > 0 ? max * 1.15 : 1] } },
        axes: [
          { stroke: muted, font, grid: { show: false }, ticks: { show: false }, size: 24, space: 70, values: (_, s) => s.map((t) => new Date(t * 1000).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })) },
          { stroke: muted, font, grid, ticks: { show: false }, size: 52, space: 34, values: (_, s) => s.map((v) => writing.current(v)) },
        ],
        series: [
          { label: "At", value: (_, t) => (t == null ? "–" : new Date(t * 1000).toLocaleTimeString("en-GB")) },
          ...lines.map((l) => ({
            label: l.label,
            stroke: colour(l.color, scheme),
            width: 1.75,
            ...(l.fill && { fill: `${colour(l.color, scheme)}22` }),
            points: { show: false, size: 4, filter: (u: UPlot, n: number) => alone(u.data[n] ?? []) },
            value: (_: UPlot, v: number | null) => (v == null ? "–" : writing.current(v)),
          })),
        ],
      },
      now.current,
      el,
    );
    plot.current = made;
    const resized = new ResizeObserver(() => made.setSize({ width: el.clientWidth, height }));
    resized.observe(el);
    return () => {
      resized.disconnect();
      made.destroy();
      plot.current = null;
    };
    // Made anew where it looks otherwise; what it shows is set below.
  }, [scheme, form]);
  useEffect(() => plot.current?.setData(now.current), [JSON.stringify(data), from, to]);
  return <div ref={box} className="chart" role="img" aria-label={label} />;
}
