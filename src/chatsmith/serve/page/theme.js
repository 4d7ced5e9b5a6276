// Runs before the first paint, so that a chosen theme does not flash. The system's theme needs nothing.
(() => {
  const chosen = localStorage.getItem("chatsmith-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
