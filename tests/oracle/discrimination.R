# Correlation, concordance, AUC and net reclassification by stats, psych, epiR, pROC and Hmisc.
# Run from the repository root: Rscript tests/oracle/discrimination.R
# Data: paired scores drawn here; survival::veteran (R package survival, LGPL-2 or later), only the
# columns that are used, with the risks of two Cox models.
suppressPackageStartupMessages({
  library(survival); library(psych); library(epiR); library(pROC); library(Hmisc)
})
RNGkind("Mersenne-Twister", "Inversion", "Rejection")
out <- "tests/oracle/data"
full <- function(v) sprintf("%.17g", v)
put <- function(d, name) {
  write.csv(d, file.path(out, paste0("discrimination_", name, ".csv")), row.names = FALSE,
            quote = FALSE)
}

# Scores with zeros and ties; an event and two risks that are rounded so that some are equal.
set.seed(7)
n <- 210
latent <- rnorm(n)
score <- function(noise) {
  raw <- exp(3 + 1.6 * latent + noise * rnorm(n))
  ifelse(raw < 8, 0, round(raw / 5) * 5)
}
d <- data.frame(site = rep(1:3, length.out = n), index = score(0.5), reference = score(0.8))
d$event <- rbinom(n, 1, plogis(-0.7 + 0.9 * latent))
d$risk_old <- round(plogis(-0.7 + 0.4 * latent + 0.3 * rnorm(n)), 2)
d$risk_new <- round(plogis(-0.7 + 0.7 * latent + 0.3 * rnorm(n)), 2)
put(d, "scores")

rows <- NULL
cases <- list(all = seq_len(n), site1 = which(d$site == 1), site2 = which(d$site == 2),
              site3 = which(d$site == 3), four = 1:4, three = 4:6)
for (case in names(cases)) for (scale in c("score", "log")) {
  x <- d$index[cases[[case]]]
  y <- d$reference[cases[[case]]]
  if (scale == "log") { x <- log1p(x); y <- log1p(y) }
  add <- function(measure, estimate, low, high, p) {
    rows <<- rbind(rows, data.frame(case = case, scale = scale, measure = measure,
      estimate = full(estimate), ci_low = full(low), ci_high = full(high), p_value = full(p)))
  }
  test <- cor.test(x, y)
  limits <- if (is.null(test$conf.int)) c(NA, NA) else test$conf.int
  add("pearson", test$estimate, limits[1], limits[2], test$p.value)
  # One row of each type of single measurement; sums of squares, not a mixed model.
  found <- ICC(data.frame(x, y), missing = FALSE, lmer = FALSE)$results
  for (kind in c("ICC1", "ICC2", "ICC3")) {
    own <- found[found$type == kind, ]
    add(tolower(kind), own$ICC, own$`lower bound`, own$`upper bound`, own$p)
  }
  rho <- epi.ccc(x, y)$rho.c
  add("ccc", rho$est, rho$lower, rho$upper, NA)
}
put(rows, "correlation")

aucs <- NULL
markers <- list(continuous = d[c("index", "reference")],
                coarse = data.frame(index = pmin(floor(d$index / 100), 3),
                                    reference = pmin(floor(d$reference / 100), 3)),
                constant = data.frame(index = rep(1, n), reference = d$reference))
for (name in names(markers)) {
  own <- lapply(markers[[name]], function(m) roc(d$event, m, direction = "<", quiet = TRUE))
  test <- suppressWarnings(
    roc.test(own$index, own$reference, method = "delong", paired = TRUE))
  aucs <- rbind(aucs, data.frame(markers = name,
    auc_index = full(auc(own$index)), auc_reference = full(auc(own$reference)),
    var_index = full(suppressWarnings(var(own$index, method = "delong"))),
    var_reference = full(var(own$reference, method = "delong")),
    covariance = full(suppressWarnings(cov(own$index, own$reference, method = "delong"))),
    z = full(unname(test$statistic)), p_value = full(test$p.value)))
}
put(aucs, "auc")

put(data.frame(ks_d = full(suppressWarnings(unname(ks.test(d$index, d$reference)$statistic)))),
    "ks")

found <- improveProb(d$risk_old, d$risk_new, d$event)
put(data.frame(nri_event = full(found$nri.ev), nri_nonevent = full(found$nri.ne),
               nri = full(found$nri), se_event = full(found$se.nri.ev),
               se_nonevent = full(found$se.nri.ne), se = full(found$se.nri)), "improve_prob")

# Risks at 180 days of models without and with Karnofsky's score.
horizon <- 180
risk <- function(formula) {
  fit <- coxph(formula, data = veteran)
  1 - as.vector(summary(survfit(fit, newdata = veteran), times = horizon)$surv)
}
v <- data.frame(time = veteran$time, event = veteran$status,
                old = risk(Surv(time, status) ~ age + celltype),
                new = risk(Surv(time, status) ~ age + celltype + karno))
put(transform(v, old = full(old), new = full(new)), "veteran")

at <- function(fit, t) summary(fit, times = t, extend = TRUE)$surv
survival_at <- function(own, t) at(survfit(Surv(time, event) ~ 1, data = own), t)
cuts <- c(0.4, 0.6, 0.8)
moves <- list(
  category_free = sign(v$new - v$old),
  categorical = sign(findInterval(v$new, cuts) - findInterval(v$old, cuts)),
  difference = ifelse(abs(v$new - v$old) > 0.1, sign(v$new - v$old), 0))
g <- survfit(Surv(time, 1 - event) ~ 1, data = v)
curve <- stepfun(g$time, c(1, g$surv))
# The curve just before each time: censorings at the time of an event do not count.
left <- stepfun(g$time, c(1, g$surv), right = TRUE)
weighted <- function(t, move) {
  early <- ifelse(v$event == 1 & v$time <= t, 1 / left(v$time), 0)
  late <- ifelse(v$time > t, 1 / curve(t), 0)
  c(sum(early[move > 0]) - sum(early[move < 0]), sum(late[move < 0]) - sum(late[move > 0])) /
    c(sum(early), sum(late))
}
nri <- NULL
for (type in names(moves)) for (t in c(60, 180, 365)) {
  move <- moves[[type]]
  s <- survival_at(v, t)
  given <- sapply(c(1, -1), function(side) {
    own <- v[move == side, ]
    share <- nrow(own) / nrow(v)
    s_own <- survival_at(own, t)
    c((1 - s_own) * share / (1 - s), s_own * share / s)
  })
  km <- c(given[1, 1] - given[1, 2], given[2, 2] - given[2, 1])
  found <- list(km = km, ipw = weighted(t, move))
  for (estimator in names(found))
    nri <- rbind(nri, data.frame(type = type, horizon = t, estimator = estimator,
      nri_event = full(found[[estimator]][1]), nri_nonevent = full(found[[estimator]][2])))
}
put(nri, "nri")

packages <- c("survival", "psych", "epiR", "pROC", "Hmisc")
writeLines(c(R.version.string, paste(packages, sapply(packages, function(p)
  as.character(packageVersion(p))))), file.path(out, "discrimination_versions.txt"))
