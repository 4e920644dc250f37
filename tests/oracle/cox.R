# Stratified Cox models by survival::coxph, and the data they were fitted to.
# Run from the repository root: Rscript tests/oracle/cox.R
# Data: survival::veteran, lung, colon, flchain (R package survival, LGPL-2 or later), only the
# columns that are used. flchain is a fixed subsample. `site` becomes the stratum.
suppressPackageStartupMessages(library(survival))
out <- "tests/oracle/data"

v <- data.frame(
  site = match(veteran$celltype, c("squamous", "smallcell", "adeno", "large")),
  time = veteran$time, event = veteran$status,
  x1 = veteran$karno, x2 = veteran$age, x3 = as.numeric(veteran$trt == 2))

l <- lung[!is.na(lung$inst) & !is.na(lung$ph.ecog), ]
l <- data.frame(
  site = l$inst, time = l$time, event = as.numeric(l$status == 2),
  x1 = l$age, x2 = as.numeric(l$sex == 2), x3 = l$ph.ecog)

k <- colon[colon$etype == 2 & !is.na(colon$nodes), ]
k <- data.frame(
  site = (k$id %% 4) + 1, time = k$time, event = k$status,
  x1 = k$age, x2 = k$nodes, x3 = as.numeric(k$rx == "Lev"), x4 = as.numeric(k$rx == "Lev+5FU"))

f <- flchain[flchain$futime > 0, ]
f <- f[seq(1, nrow(f), by = 5), ]
f <- data.frame(
  site = (seq_len(nrow(f)) %% 9) + 1, time = f$futime, event = f$death,
  x1 = f$age, x2 = as.numeric(f$sex == "M"), x3 = f$kappa + f$lambda)

sets <- list(veteran = v, lung = l, colon = k, flchain = f)
rows <- NULL
for (name in names(sets)) {
  d <- sets[[name]]
  write.csv(d, file.path(out, paste0("cox_", name, ".csv")), row.names = FALSE)
  xs <- grep("^x", names(d), value = TRUE)
  formula <- as.formula(paste("Surv(time, event) ~", paste(xs, collapse = "+"), "+ strata(site)"))
  for (ties in c("efron", "breslow")) {
    fit <- coxph(formula, data = d, ties = ties,
                 control = coxph.control(eps = 1e-13, toler.chol = 1e-14, iter.max = 50))
    rows <- rbind(rows, data.frame(
      dataset = name, ties = ties, term = xs, coef = coef(fit), se = sqrt(diag(vcov(fit))),
      null_loglik = fit$loglik[1], loglik = fit$loglik[2], n = fit$n, n_events = fit$nevent))
  }
}
for (column in c("coef", "se", "null_loglik", "loglik"))
  rows[[column]] <- sprintf("%.17g", rows[[column]])
write.csv(rows, file.path(out, "cox_expected.csv"), row.names = FALSE, quote = FALSE)
writeLines(c(R.version.string, paste("survival", packageVersion("survival"))),
           file.path(out, "cox_versions.txt"))
