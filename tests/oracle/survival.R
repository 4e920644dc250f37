# Sandwich errors, proportionality tests, concordance, curves, log-rank tests and baseline hazards
# by the R package survival, of the data that cox.R wrote.
# Run from the repository root: Rscript tests/oracle/survival.R
suppressPackageStartupMessages(library(survival))
out <- "tests/oracle/data"
number <- function(x) sprintf("%.17g", x)
save <- function(rows, name) {
  for (column in names(rows))
    if (is.double(rows[[column]])) rows[[column]] <- number(rows[[column]])
  write.csv(rows, file.path(out, paste0("survival_", name, ".csv")), row.names = FALSE,
            quote = FALSE)
}

sets <- list()
for (name in c("veteran", "lung", "colon", "flchain"))
  sets[[name]] <- read.csv(file.path(out, paste0("cox_", name, ".csv")))

# Veteran in months of 60 days, so that nearly every time is tied; site 5 is one patient with the
# event, site 6 has no events, site 7 is one patient without the event.
t <- sets$veteran
t$time <- ceiling(t$time / 60)
t$site[40] <- 5
t$site[seq(3, 137, by = 11)] <- 6
t$event[t$site == 6] <- 0
t$site[which(t$event == 0 & t$site < 5)[1]] <- 7
write.csv(t, file.path(out, "survival_tied.csv"), row.names = FALSE)
sets$tied <- t

binary <- c(veteran = "x3", lung = "x2", colon = "x4", flchain = "x2", tied = "x3")
# The first day of veteran is before, and the last one after, every event of some group.
days <- list(
  veteran = c(1, 51, 100, 200, 400, 999), lung = c(60, 180, 360, 540, 800),
  colon = c(100, 500, 1000, 2000, 3000), flchain = c(30, 365, 1826, 3652, 5000),
  tied = c(1, 2, 4, 7, 17))
horizons <- list(
  veteran = c(60, 180), lung = c(180, 360), colon = c(500, 2000), flchain = c(1000, 4000),
  tied = c(1, 3))

cox <- covariance <- residual <- zph <- harrell <- pairs <- hazard <- curve <- NULL
log_rank <- log_rank_variance <- NULL
for (name in names(sets)) {
  d <- sets[[name]]
  xs <- grep("^x", names(d), value = TRUE)
  formula <- as.formula(paste("Surv(time, event) ~", paste(xs, collapse = "+"), "+ strata(site)"))
  for (ties in c("efron", "breslow")) {
    control <- coxph.control(eps = 1e-13, toler.chol = 1e-14, iter.max = 50)
    fit <- coxph(formula, data = d, ties = ties, control = control)
    robust <- coxph(formula, data = d, ties = ties, control = control, robust = TRUE)
    id <- data.frame(dataset = name, ties = ties)
    cox <- rbind(cox, cbind(id, term = xs, coef = unname(coef(fit)),
                            robust_se = sqrt(diag(vcov(robust)))))
    covariance <- rbind(covariance, cbind(
      id, row = rep(xs, times = length(xs)), column = rep(xs, each = length(xs)),
      value = as.vector(vcov(robust))))
    if (name %in% c("veteran", "tied"))
      residual <- rbind(residual, cbind(
        id, row = rep(seq_len(nrow(d)), length(xs)), term = rep(xs, each = nrow(d)),
        value = as.vector(residuals(fit, type = "score"))))
    test <- cox.zph(fit, transform = "identity")$table
    zph <- rbind(zph, cbind(id, term = rownames(test), chi2 = unname(test[, "chisq"]),
                            df = as.integer(test[, "df"]), p = unname(test[, "p"])))
    found <- concordance(fit, keepstrata = TRUE)
    harrell <- rbind(harrell, cbind(id, c_index = unname(found$concordance),
                                    se = unname(sqrt(found$var))))
    # The counts carry no names; their strata come in the order of the factor's levels.
    sites <- sort(unique(d$site))
    pairs <- rbind(pairs, cbind(
      id, site = sites, concordant = found$count[, "concordant"],
      discordant = found$count[, "discordant"], tied = found$count[, "tied.x"]))
    base <- basehaz(fit, centered = FALSE)
    base$site <- as.integer(sub("site=", "", base$strata))
    stopifnot(setequal(base$site, sites))
    for (horizon in horizons[[name]]) for (site in sites) {
      until <- base$hazard[base$site == site & base$time <= horizon]
      hazard <- rbind(hazard, cbind(id, site = site, horizon = horizon,
                                    value = if (length(until)) max(until) else 0))
    }
  }

  group <- d[[binary[[name]]]]
  for (part in c("all", "0", "1")) {
    own <- if (part == "all") rep(TRUE, nrow(d)) else group == as.integer(part)
    at <- summary(survfit(Surv(time, event) ~ 1, data = d[own, ], conf.type = "log-log"),
                  times = days[[name]], extend = TRUE)
    curve <- rbind(curve, data.frame(
      dataset = name, column = binary[[name]], group = part, day = as.integer(at$time),
      survival = at$surv, se = at$std.err, low = at$lower, high = at$upper))
  }

  groupings <- list(binary = group)
  if (name == "colon") groupings$arm <- d$x3 + 2 * d$x4
  for (grouping in names(groupings)) {
    d$group <- groupings[[grouping]]
    test <- survdiff(Surv(time, event) ~ group + strata(site), data = d)
    level <- sort(unique(d$group))
    log_rank <- rbind(log_rank, data.frame(
      dataset = name, grouping = grouping, group = as.integer(level),
      observed = rowSums(as.matrix(test$obs)), expected = rowSums(as.matrix(test$exp)),
      chi2 = test$chisq, p = pchisq(test$chisq, length(level) - 1, lower.tail = FALSE)))
    log_rank_variance <- rbind(log_rank_variance, data.frame(
      dataset = name, grouping = grouping, row = as.integer(rep(level, times = length(level))),
      column = as.integer(rep(level, each = length(level))), value = as.vector(test$var)))
  }
}
save(cox, "cox")
save(covariance, "robust_covariance")
save(residual, "score_residuals")
save(zph, "zph")
save(harrell, "concordance")
save(pairs, "pairs")
save(hazard, "hazard")
save(curve, "curve")
save(log_rank, "log_rank")
save(log_rank_variance, "log_rank_variance")
save(data.frame(program = c("R", "survival"),
                version = c(R.version.string, as.character(packageVersion("survival")))),
     "versions")
