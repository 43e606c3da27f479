import { ActionIcon, Badge, Button, createTheme, Drawer, Menu, Modal, Paper, Table, Tooltip } from "@mantine/core";

// The shades are chosen so that text on and beside them has the contrast of WCAG AA in both schemes.
export const theme = createTheme({
  primaryColor: "indigo",
  primaryShade: { light: 8, dark: 8 },
  autoContrast: true,
  defaultRadius: "md",
  cursorType: "pointer",
  respectReducedMotion: true,
  fontFamily: 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif',
  fontFamilyMonospace: 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace',
  headings: { fontWeight: "650", sizes: { h1: { fontSize: "1.5rem", lineHeight: "1.25" }, h2: { fontSize: "1.05rem" }, h3: { fontSize: "0.95rem" } } },
  colors: {
    dark: ["#d5d9e2", "#b9bfcc", "#9aa2b4", "#7a8397", "#454d5f", "#333a49", "#252b37", "#1b202a", "#141820", "#0e1117"],
  },
  components: {
    Paper: Paper.extend({ defaultProps: { radius: "md" } }),
    Badge: Badge.extend({ defaultProps: { variant: "light", radius: "sm", tt: "none", fw: 600 } }),
    Button: Button.extend({ defaultProps: { radius: "md" } }),
    ActionIcon: ActionIcon.extend({ defaultProps: { variant: "subtle", color: "gray" } }),
    Tooltip: Tooltip.extend({ defaultProps: { openDelay: 300, multiline: true, maw: 420, withArrow: true, events: { hover: true, focus: true, touch: true } } }),
    // Their head is part of a dialog, and not the page's.
    Modal: Modal.extend({ defaultProps: { attributes: { header: { role: "none" } }, centered: true, radius: "lg", overlayProps: { backgroundOpacity: 0.4, blur: 2 } } }),
    Drawer: Drawer.extend({ defaultProps: { attributes: { header: { role: "none" } }, overlayProps: { backgroundOpacity: 0.3 } } }),
    // Within what they belong to, where who listens finds them; the placeholder would be no item of a menu.
    Menu: Menu.extend({ defaultProps: { withinPortal: false, withInitialFocusPlaceholder: false } }),
    Table: Table.extend({ defaultProps: { verticalSpacing: "sm", horizontalSpacing: "md" } }),
  },
});
