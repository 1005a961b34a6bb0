// Replaces each picture by a live chart, once it comes into view; without this script the pictures stay.
(() => {
  const live = (figure) => {
    const spec = JSON.parse(figure.querySelector(".chart-spec").textContent);
    const place = document.createElement("div");
    place.className = "chart-live";
    place.style.width = "100%";
    const picture = figure.querySelector(".chart-picture");
    picture.parentNode.insertBefore(place, picture);
    // ast: expressions are interpreted, so that a page may forbid eval.
    vegaEmbed(place, spec, { actions: false, renderer: "svg", ast: true })
      .then(() => { picture.hidden = true; })
      .catch((problem) => { place.remove(); console.error(problem); });
  };
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) { seen.unobserve(entry.target); live(entry.target); }
    }
  }, { rootMargin: "200px" });
  for (const spec of document.querySelectorAll(".chart .chart-spec")) seen.observe(spec.closest(".chart"));
})();
