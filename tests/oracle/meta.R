# Random-effects meta-analysis by metafor: univariate (rma) and bivariate (rma.mv).
# Run from the repository root: Rscript tests/oracle/meta.R
# All data are generated here with a fixed seed; no third-party data.
suppressPackageStartupMessages(library(metafor))
out <- "tests/oracle/data"
number <- function(x) sprintf("%.17g", x)

# Univariate: estimates y with variances v of k sites; tau2 of `flat` is 0 by both methods.
sets <- list(
  three = data.frame(y = c(0.42, 1.31, -0.26), v = c(0.021, 0.034, 0.055)),
  four = data.frame(y = c(0.815, 0.902, 0.867, 0.741), v = c(4.1, 2.3, 9.7, 6.4) * 1e-4),
  flat = data.frame(y = c(1.02, 0.97, 1.05, 0.99, 1.01, 0.94, 1.03, 1, 0.98),
                    v = c(5, 9, 12, 4, 7, 10, 6, 8, 11) * 1e-3))
RNGkind("Mersenne-Twister", "Inversion", "Rejection")
set.seed(20050609)
v <- signif(runif(12, 0.01, 0.3), 6)
sets$twelve <- data.frame(y = signif(rnorm(12, -0.5, sqrt(v + 0.15)), 6), v = v)

inputs <- rows <- NULL
for (name in names(sets)) {
  d <- sets[[name]]
  inputs <- rbind(inputs, data.frame(dataset = name, y = number(d$y), v = number(d$v)))
  for (method in c("DL", "REML")) {
    control <- if (method == "REML") list(threshold = 1e-14, maxiter = 1000) else list()
    # "knha" is the Hartung-Knapp variance without modification: it may be below the fixed one.
    fit <- rma(y, v, data = d, method = method, test = "knha", control = control)
    # metafor's I2 is tau2 / (tau2 + typical v); ours is that of Higgins and Thompson, from Q.
    i2 <- max(0, (fit$QE - (fit$k - 1)) / fit$QE)
    rows <- rbind(rows, data.frame(
      dataset = name, method = method, k = fit$k, estimate = number(fit$b[1]),
      se = number(fit$se), ci_low = number(fit$ci.lb), ci_high = number(fit$ci.ub),
      q = number(fit$QE), p_value = number(fit$QEp), i2 = number(i2), tau2 = number(fit$tau2)))
  }
}
write.csv(inputs, file.path(out, "meta_univariate.csv"), row.names = FALSE, quote = FALSE)
write.csv(rows, file.path(out, "meta_univariate_expected.csv"), row.names = FALSE, quote = FALSE)

# Bivariate: 2x2 tables of n sites with correlated logit sensitivity and specificity.
generate <- function(seed, n, means, tau, rho, sizes) {
  set.seed(seed)
  z <- matrix(rnorm(2 * n), n)
  logit_se <- means[1] + tau[1] * z[, 1]
  logit_sp <- means[2] + tau[2] * (rho * z[, 1] + sqrt(1 - rho^2) * z[, 2])
  diseased <- sample(sizes, n, replace = TRUE)
  healthy <- sample(2 * sizes, n, replace = TRUE)
  tp <- rbinom(n, diseased, plogis(logit_se))
  tn <- rbinom(n, healthy, plogis(logit_sp))
  data.frame(tp = tp, fn = diseased - tp, fp = healthy - tn, tn = tn)
}
tables <- list(
  twelve = generate(1, 12, c(1.4, 1.8), c(0.9, 0.8), -0.4, 80:200),
  fifteen = generate(4, 15, c(2.2, 2.0), c(1.0, 1.1), 0.3, 12:60),
  forty = generate(8, 40, c(1.2, 1.6), c(0.7, 0.9), -0.4, 50:300))

rows <- NULL
for (name in names(tables)) {
  d <- tables[[name]]
  write.csv(d, file.path(out, paste0("meta_bivariate_", name, ".csv")), row.names = FALSE)
  empty <- apply(d == 0, 1, any)
  a <- d + 0.5 * empty
  k <- nrow(a)
  long <- data.frame(
    site = rep(seq_len(k), each = 2), outcome = factor(rep(c("se", "sp"), k), c("se", "sp")),
    y = c(rbind(log(a$tp / a$fn), log(a$tn / a$fp))),
    v = c(rbind(1 / a$tp + 1 / a$fn, 1 / a$tn + 1 / a$fp)))
  # nlminb refuses a tolerance below 1e-10 with its numerical gradient and is off by 1e-6.
  fit <- rma.mv(y, v, mods = ~ 0 + outcome, random = ~ outcome | site, struct = "UN",
                data = long, method = "REML", sparse = FALSE,
                control = list(optimizer = "optim", optmethod = "Nelder-Mead", reltol = 1e-16,
                               maxit = 100000))
  rows <- rbind(rows, data.frame(
    dataset = name, n_sites = k, n_empty = sum(empty),
    mean_se = number(fit$b[1]), mean_sp = number(fit$b[2]),
    se_se = number(fit$se[1]), se_sp = number(fit$se[2]), covariance = number(fit$vb[1, 2]),
    tau_se = number(sqrt(fit$tau2[1])), tau_sp = number(sqrt(fit$tau2[2])),
    rho = number(fit$rho),
    sensitivity = number(plogis(fit$b[1])), sensitivity_low = number(plogis(fit$ci.lb[1])),
    sensitivity_high = number(plogis(fit$ci.ub[1])),
    specificity = number(plogis(fit$b[2])), specificity_low = number(plogis(fit$ci.lb[2])),
    specificity_high = number(plogis(fit$ci.ub[2]))))
}
write.csv(rows, file.path(out, "meta_bivariate_expected.csv"), row.names = FALSE, quote = FALSE)
writeLines(c(R.version.string, paste("metafor", packageVersion("metafor"))),
           file.path(out, "meta_versions.txt"))
